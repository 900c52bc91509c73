"""`alpha-panda demo`: the main job from a market to fills, in one command."""
