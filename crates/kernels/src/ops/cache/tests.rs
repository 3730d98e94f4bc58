use super::*;
use crate::Bf16;
use crate::ops::testing::*;

fn rows_land_as<T: Element + PartialEq + std::fmt::Debug>() {
    let (heads, width) = (2, 3);
    // Every second value is halfway between two bf16.
    let x: Vec<f32> = (0..2 * heads * width).map(|v| 1.0 + v as f32 / 256.0).collect();
    let places = Places::new(vec![37, 5]).unwrap();
    let transposed = Strides { unit: heads * width * TILE, head: width * TILE, key: 1, component: TILE };
    let plain = Strides { unit: heads * width * TILE, head: width * TILE, key: width, component: 1 };
    for strides in [transposed, plain] {
        for device in devices([1, 2, 3]) {
            let mut to = vec![T::from_f32(0.0); 2 * strides.unit];
            append_as(&device, view(&x), (heads, width), &places, strides, view_mut(&mut to));
            for (t, (page, row)) in [(0, (1, 5)), (1, (0, 5))] {
                for h in 0..heads {
                    for p in 0..width {
                        let at = page * strides.unit + h * strides.head + row * strides.key + p * strides.component;
                        assert_eq!(to[at], T::from_f32(x[(t * heads + h) * width + p]), "{device:?}");
                    }
                }
            }
            assert_eq!(to.iter().filter(|v| v.to_f32() != 0.0).count(), x.len());
        }
    }
}

#[test]
fn rows_land_in_both_layouts_rounded() {
    rows_land_as::<f32>();
    rows_land_as::<Bf16>();
}

#[test]
fn a_place_is_for_one_token() {
    assert_eq!(Places::new(vec![3, 70, 5, 70]).unwrap_err().to_string(), "two tokens would go to row 6 of page 2");
    let places = Places::new(vec![70, 3]).unwrap();
    assert_eq!((places.len(), places.pages()), (2, 3));
}

#[test]
fn a_page_is_copied_whole() {
    for device in Device::all(1).unwrap() {
        let mut pages: Vec<u16> = (0..12).collect();
        copy_page(&device, view_mut(&mut pages), 3, 2, 0);
        assert_eq!(pages, [8, 9, 10, 11, 4, 5, 6, 7, 8, 9, 10, 11]);
    }
}
