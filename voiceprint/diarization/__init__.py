"""Who speaks when: the voices of a recording and the times of each."""
