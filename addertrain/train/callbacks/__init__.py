"""What goes along with a training: averages, fresh statistics, guards, saves, curves; one file each."""
