"""From footage to crops: decode, detect, fuse riders, track, link, choose crops."""
