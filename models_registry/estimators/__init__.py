"""Families of estimators, one file each: how one is fitted, taken apart into arrays, checked and scored. Pure."""
