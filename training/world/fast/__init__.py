"""The fast world: two patterned objects that bounce between the walls and pass one behind the other."""
