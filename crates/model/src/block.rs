//! A block: `x + attention(norm(x))`, then `x + feed_forward(norm(x))`.

use minke_spec::ModelConfig;
use minke_spec::config::AttentionConfig;
use minke_tensor::{Device, Param, Pass, Tap, Tensor, recompute};

use crate::batch::{Asked, Rows};
use crate::cache::KvCache;
use crate::gqa::Gqa;
use crate::mla::Mla;
use crate::mlp::Mlp;
use crate::moe::{ExpertLoad, Moe, Routed};
use crate::source::{HasParams, ParamSource, params};
use crate::{Batch, Error, Result};

/// The two kinds of attention.
#[derive(Clone)]
pub(crate) enum Attention {
    Mla(Box<Mla>),
    Gqa(Box<Gqa>),
}

/// The two kinds of feed-forward.
#[derive(Clone)]
pub(crate) enum FeedForward {
    Mlp(Box<Mlp>),
    Moe(Box<Moe>),
}

impl HasParams for Attention {
    fn params<'a>(&'a self, to: &mut Vec<&'a Param>) {
        match self {
            Self::Mla(mla) => mla.params(to),
            Self::Gqa(gqa) => gqa.params(to),
        }
    }
    fn params_mut<'a>(&'a mut self, to: &mut Vec<&'a mut Param>) {
        match self {
            Self::Mla(mla) => mla.params_mut(to),
            Self::Gqa(gqa) => gqa.params_mut(to),
        }
    }
}

impl HasParams for FeedForward {
    fn params<'a>(&'a self, to: &mut Vec<&'a Param>) {
        match self {
            Self::Mlp(mlp) => mlp.params(to),
            Self::Moe(moe) => moe.params(to),
        }
    }
    fn params_mut<'a>(&'a mut self, to: &mut Vec<&'a mut Param>) {
        match self {
            Self::Mlp(mlp) => mlp.params_mut(to),
            Self::Moe(moe) => moe.params_mut(to),
        }
    }
}

/// One layer of the transformer.
#[derive(Clone)]
pub(crate) struct Block {
    layer: usize,
    epsilon: f32,
    input_layernorm: Param,
    attention: Attention,
    post_attention_layernorm: Param,
    feed_forward: FeedForward,
}

params!(Block { input_layernorm, attention, post_attention_layernorm, feed_forward });

impl Block {
    pub(crate) fn new(config: &ModelConfig, source: &mut ParamSource, layer: usize) -> Self {
        let attention = match &config.attention {
            AttentionConfig::Mla(sizes) => Attention::Mla(Mla::new(config, sizes, source, layer).into()),
            AttentionConfig::Gqa(sizes) => Attention::Gqa(Gqa::new(config, sizes, source, layer).into()),
        };
        let feed_forward = match &config.moe {
            Some(moe) if config.is_moe_layer(layer) => FeedForward::Moe(Moe::new(moe, source, layer).into()),
            _ => FeedForward::Mlp(Mlp::new(source, &format!("model.layers.{layer}.mlp")).into()),
        };
        Self {
            layer,
            epsilon: config.rms_norm_eps,
            input_layernorm: source.take(&format!("model.layers.{layer}.input_layernorm.weight")),
            attention,
            post_attention_layernorm: source.take(&format!("model.layers.{layer}.post_attention_layernorm.weight")),
            feed_forward,
        }
    }

    /// Its number.
    pub(crate) fn layer(&self) -> usize {
        self.layer
    }

    /// The output, and what a gate reports. x [T, D] -> [T, D], or the rows that are `asked` for
    pub(crate) fn forward(
        &self,
        pass: Pass<'_>,
        x: &Tensor,
        batch: &Batch,
        asked: Option<&Asked>,
        cos_sin: &Tensor,
        cache: Option<&mut KvCache>,
    ) -> Result<(Tensor, Option<Routed>)> {
        // The one place that decides what is kept for the backward and what is computed again.
        let again = pass.record && pass.recompute && cache.is_none();
        let x = if again {
            let (block, batch, cos_sin) = (self.clone(), batch.clone(), cos_sin.clone());
            recompute(pass, vec![x.clone()], move |inputs, pass| {
                block.attend(pass, &inputs[0], &batch, None, &cos_sin, None).map_err(only_tensor)
            })?
        } else {
            self.attend(pass, x, batch, asked, cos_sin, cache)?
        };
        // Nothing is asked for: keys and values are all that this layer has to give.
        if x.shape().rows() == 0 {
            return Ok((x, None));
        }
        let (y, report) = match &self.feed_forward {
            FeedForward::Mlp(_) if again => {
                let block = self.clone();
                let y = recompute(pass, vec![x], move |inputs, pass| block.feed_dense(pass, &inputs[0]))?;
                (y, None)
            }
            FeedForward::Mlp(_) => (self.feed_dense(pass, &x)?, None),
            FeedForward::Moe(moe) => {
                let batch = asked.map_or(batch, |asked| &asked.batch);
                let (y, report) =
                    moe.forward(pass, &x.rms_norm(pass, &self.post_attention_layernorm, self.epsilon)?, batch)?;
                (x.add(pass, &y)?, report)
            }
        };
        pass.tap(Tap::Layer { layer: self.layer, value: "out" }, &y);
        Ok((y, report))
    }

    /// `x + attention(norm(x))`, of the rows that are `asked` for, or of all.
    fn attend(
        &self,
        pass: Pass<'_>,
        x: &Tensor,
        batch: &Batch,
        asked: Option<&Asked>,
        cos_sin: &Tensor,
        cache: Option<&mut KvCache>,
    ) -> Result<Tensor> {
        let normed = x.rms_norm(pass, &self.input_layernorm, self.epsilon)?;
        let all = Rows { x: &normed, batch, cos_sin };
        let forward = |queries: &Rows<'_>| match &self.attention {
            Attention::Mla(mla) => mla.forward(pass, queries, &all, cache),
            Attention::Gqa(gqa) => gqa.forward(pass, queries, &all, cache),
        };
        let Some(Asked { rows, batch }) = asked else { return Ok(x.add(pass, &forward(&all)?)?) };
        let (normed, cos_sin) = (normed.gather_rows(pass, rows)?, cos_sin.gather_rows(pass, rows)?);
        let y = forward(&Rows { x: &normed, batch, cos_sin: &cos_sin })?;
        Ok(x.gather_rows(pass, rows)?.add(pass, &y)?)
    }

    /// `x + mlp(norm(x))`.
    fn feed_dense(&self, pass: Pass<'_>, x: &Tensor) -> minke_tensor::Result<Tensor> {
        let FeedForward::Mlp(mlp) = &self.feed_forward else { unreachable!("only called for dense blocks") };
        let y = mlp.forward(pass, &x.rms_norm(pass, &self.post_attention_layernorm, self.epsilon)?)?;
        x.add(pass, &y)
    }

    /// Moves the selection bias of the block's gate, if it has one, towards an even load.
    pub(crate) fn balance(&mut self, device: &Device, load: &ExpertLoad, gamma: f32) {
        if let FeedForward::Moe(moe) = &mut self.feed_forward {
            moe.balance(device, load, gamma);
        }
    }
}

/// Inside a block only tensor operations can fail.
fn only_tensor(error: Error) -> minke_tensor::Error {
    match error {
        Error::Tensor(error) => error,
        Error::Adapter(_) => unreachable!("invariant: adapters are attached outside of a forward"),
    }
}
