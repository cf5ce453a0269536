"""Archives that must decode for ever, and archives that must be refused."""
