"""Preflight: what a desk needs before it starts; each answer is a value, and a policy says what it holds back."""
