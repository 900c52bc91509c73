"""What runs on one machine: embedded servers, supervision, up and down."""
