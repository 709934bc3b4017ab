"""Messages of the API into domain types and back.

The only place where requests are validated: what comes out obeys the rules that the protos state,
and what does not raises InvalidArgument with the path of the field.
"""
