"""A camera's labels as a dataset for others.

catalog -> which crops, with whose label -> records -> files of one format -> a folder
           selection                       records    formats                folder
"""
