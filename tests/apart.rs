//! A device with memory of its own, emulated: a run's images stay on it, or travel while the step before computes. No bit may differ.

mod fixture;

use defrost::device::cuda::Cuda;
use defrost::device::cuda::emulated::{Landing, Manner, open};
use defrost::error::Result;
use defrost::exec::{Input, Passes, Program, Session};
use defrost::ir::Builder;
use defrost::models::Backbone;
use defrost::ops::{Act, Activation};
use defrost::train::settings::PixelsName;
use defrost::train::{Event, Listener, Settings, train};
use fixture::Data;
use std::fs;
use std::sync::Mutex;

/// Keeps the bytes that are planned, and the line that says where pixels are.
#[derive(Default)]
struct Opening(Mutex<(u64, String)>);

impl Listener for Opening {
    fn on(&self, event: Event) -> Result<()> {
        let mut opening = self.0.lock().unwrap();
        match event {
            Event::Planned { bytes, .. } => opening.0 = bytes as u64,
            Event::Note(text) if text.starts_with("pixels: ") => opening.1 += text,
            _ => {}
        }
        Ok(())
    }
}

/// What a run leaves: the losses, the best model, what it says of the validation images.
type Files = [Vec<u8>; 3];

/// A run, with the bytes that it planned and the line that says where its pixels were.
fn run(data: &Data, manner: Manner, name: &str, pixels: PixelsName) -> (Files, u64, String) {
    let settings = Settings {
        weights: "random".into(),
        input_size: 32,
        epochs: 1,
        batch_size: 3,
        val_batch_size: 2,
        val_split: 0.25,
        pixels,
        // A forward pass and a step of the head: what is tried is how pixels get there.
        freeze: "all".into(),
        feature_cache: false,
        ..Settings::new(data.path("photos"), Backbone::DenseNet121)
    };
    let (out, opening) = (data.path(name), Opening::default());
    train(open(manner).unwrap(), &settings, &out, &opening).unwrap();
    let bytes = |file: &str| fs::read(out.join(file)).unwrap();
    let files = ["steps.csv", "best.safetensors", "predictions_val.csv"].map(bytes);
    let (planned, line) = opening.0.into_inner().unwrap();
    (files, planned, line)
}

// A chip that has the planned memory and half of what would let the pixels stay.
#[test]
fn pixels_on_the_device_and_pixels_that_travel_are_the_same() {
    let data = Data::new("apart", 6);
    let mut losses = Vec::new();
    for (pixels, bytes, said) in [(PixelsName::F32, 12 * 32 * 32 * 3 * 4, "144 KiB"), (PixelsName::U8, 12 * 32 * 32 * 3, "36.0 KiB")] {
        let (stay, planned, line) = run(&data, Manner::FAST, &format!("stay-{pixels:?}"), pixels);
        assert_eq!(line, format!("pixels: on the device, {said}"));
        for landing in [Landing::AtOnce, Landing::AtWait] {
            let manner = Manner { landing, memory: planned + bytes, ..Manner::FAST };
            let (travel, _, line) = run(&data, manner, &format!("travel-{pixels:?}-{landing:?}"), pixels);
            assert!(line.starts_with("pixels: each batch is sent to the device while the one before computes; "), "{line}");
            assert!(travel == stay, "{pixels:?}, {landing:?}");
        }
        losses.push(stay[0].clone());
    }
    assert!(losses[0] != losses[1], "rounded pixels are others");
}

#[test]
fn what_is_sent_is_read_once_and_in_its_order() {
    for landing in [Landing::AtOnce, Landing::AtWait] {
        let device: Cuda = open(Manner { landing, ..Manner::CHECKED }).unwrap();
        let mut b = Builder::new();
        let x = b.input("x", [2, 3]);
        let y = b.op(Activation { act: Act::Relu }, &[x]);
        b.output("y", y);
        let mut program = Program::compile(b.finish().unwrap(), &device, Passes::default()).unwrap();
        let mut session = Session::new(device).unwrap();
        session.reserve(&program).unwrap();
        let batches: Vec<[f32; 6]> = (0..5).map(|i| [i as f32, -1.0, 2.0, 3.5, 0.0, 7.0 + i as f32]).collect();
        let relu = |x: &[f32; 6]| x.map(|x| f64::from(x.max(0.0))).to_vec();
        let mut sent = session.send_ahead(&batches[0][..]).unwrap();
        for (i, batch) in batches.iter().enumerate() {
            session.feed(&program, "x", Input::Sent(sent.take().unwrap(), batch[..].into())).unwrap();
            session
                .attempt(&mut program, &|| true, |session, _| {
                    sent = batches.get(i + 1).map(|next| session.send_ahead(&next[..])).transpose()?.flatten();
                    Ok(true)
                })
                .unwrap();
            assert_eq!(session.get(&program, "y").unwrap(), relu(batch));
        }
        // Two are sent: the first is lost, and the host's own numbers take its place. A receipt holds once.
        let [first, second] = [1, 2].map(|i| session.send_ahead(&batches[i][..]).unwrap().unwrap());
        for (sent, own, expected) in [(first, 1, 1), (second, 3, 2), (second, 4, 4)] {
            session.feed(&program, "x", Input::Sent(sent, batches[own][..].into())).unwrap();
            session.replay(&mut program, None).unwrap();
            assert_eq!(session.get(&program, "y").unwrap(), relu(&batches[expected]));
        }
    }
}
