"""Long work: what operations ask for, and the loop that does them."""
