"""The review queues: each module holds one ``collabteam.reviewing.review_queue.ReviewQueue``."""
