"""The procedural world: scenes, renderer and prompts."""
