"""What a process finds in a container of pysup's, and in one of its peers': measured from inside, by one probe."""
