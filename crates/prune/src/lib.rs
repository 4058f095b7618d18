//! From weights and calibration statistics to masks.
