"""What runs have to say side by side: tables, pictures, links and one page of all. Reads runs, changes none."""
