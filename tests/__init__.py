"""Tests of ringfence."""
