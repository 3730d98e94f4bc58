//! Decoded blocks of quantized formats against the `gguf` package, to the bit.

use minke_kernels::Isa;
use minke_kernels::format::{Stored, decode_rows};
use minke_spec::Format;
use safetensors::SafeTensors;

#[test]
fn every_block_has_the_values_of_the_gguf_package() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/formats/blocks.safetensors");
    let file = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let mut compared = 0;
    for format in Format::ALL.into_iter().filter(|format| format.block_elements() > 1) {
        let bytes = tensors.tensor(&format!("{}.blocks", format.name())).unwrap();
        let values = tensors.tensor(&format!("{}.values", format.name())).unwrap();
        let want: Vec<f32> = values.data().as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect();
        let k = format.block_elements();
        let w = Stored::new(format, bytes.data(), &[], want.len() / k, k);
        for isa in Isa::available() {
            let mut got = vec![f32::NAN; want.len()];
            decode_rows(isa, w, 0, &mut got);
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                // A difference of equal numbers is a zero whose sign has no meaning.
                let same = got.to_bits() == want.to_bits() || *got == 0.0 && *want == 0.0;
                assert!(same, "{} {} element {i}: {got}, not {want}", isa.name(), format.name());
            }
        }
        compared += 1;
    }
    assert_eq!(compared, Format::ALL.len() - 4);
}
