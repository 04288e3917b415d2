"""What a job is and its life: asked for, admitted, queued, followed, ended."""
