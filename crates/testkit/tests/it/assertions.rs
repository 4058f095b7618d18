//! The tensor assertion sees what it must.

use ressa_testkit::difference;
use tch::Tensor;

#[test]
fn the_largest_difference_is_found_where_it_is() {
    let expected = Tensor::from_slice(&[1.0f32, -8.0, 3.0, 4.0, 5.0, 6.0]).view([2, 3]);
    let actual = &expected + Tensor::from_slice(&[0.0f32, 0.0, 0.0, 0.0, -0.5, 0.25]).view([2, 3]);
    let found = difference(&actual, &expected);
    assert_eq!((found.largest, found.scale, found.at.as_slice()), (0.5, 8.0, [1, 1].as_slice()));
    assert_eq!(found.values, (4.5, 5.0));
    assert!(found.within(0.0625) && !found.within(0.0624));
}

#[test]
fn what_is_not_a_number_is_never_close() {
    let number = Tensor::from_slice(&[1.0f32, 2.0]);
    let nan = Tensor::from_slice(&[1.0f32, f32::NAN]);
    let infinite = Tensor::from_slice(&[1.0f32, f32::INFINITY]);
    assert!(!difference(&nan, &number).within(1e9));
    assert!(!difference(&number, &nan).within(1e9));
    assert!(!difference(&infinite, &number).within(1e9));
    assert!(difference(&infinite, &infinite).within(0.0));
}
