"""The migrations, in their order by number."""
