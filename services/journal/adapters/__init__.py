"""The stream behind a pull consumer, the read models in SQL, the signed heads in a file and a bucket."""
