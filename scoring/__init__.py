"""Files to files: the answers of a model beside every row, on this machine or on a Ray cluster."""
