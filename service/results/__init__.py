"""What a job made, handed over: its archive, its images one by one, its certificate."""
