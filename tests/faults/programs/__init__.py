"""Programs that tests run in processes of their own, because they fork, are interrupted or end in the middle."""
