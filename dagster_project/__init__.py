"""When research runs: assets, checks, sensors and jobs. Assets are thin: load, call a function, return metadata."""
