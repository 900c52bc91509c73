"""The offline store: bars, features and labels by session on disk, and the frames that are trained on."""
