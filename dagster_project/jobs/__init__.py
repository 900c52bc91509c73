"""What a person launches: a training, a promotion, a rollback."""
