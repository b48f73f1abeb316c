#pragma once

#include <saccade/core/ops.h>
#include <saccade/nn/init.h>
#include <saccade/nn/module.h>

namespace saccade::nn {

/// Convolution without bias. Images of `in` channels -> images of `out` channels.
/// weight: (out, kernel, kernel, in / groups), first drawn from N(0, sqrt(2 / (kernel^2 out))): Kaiming's fan-out rule
/// with the groups not divided out, as in ClassyVision and torchvision.
class Conv2d : public Module {
 public:
  struct Options {
    int64_t kernel = 1, stride = 1, groups = 1;
    int64_t padding = -1;  ///< -1: (kernel - 1) / 2, which keeps the size at stride 1
  };
  Conv2d(int64_t in, int64_t out, Options options, const Init& init = {});

  Tensor weight;

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  Conv2dOptions options_;
};

/// Batch normalisation (eps 1e-5, momentum 0.1) of images or of rows (N, C), with ReLU and a residual fused behind it.
/// Statistics are per segment in training; running statistics are used in evaluation. See saccade::batch_norm.
class BatchNorm : public Module {
 public:
  explicit BatchNorm(int64_t channels, bool relu = false);

  using Module::operator();
  /// relu?( norm(x) + residual )
  Tensor operator()(const Tensor& x, const Tensor& residual);

  Tensor weight, bias, running_mean, running_var;  ///< (C): gamma 1, beta 0, mean 0, variance 1 at first

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  Tensor normalize(const Tensor& x, const Tensor& residual);
  bool relu_;
};

/// y = x weight^T + bias. Rows (N, in) -> (N, out). weight: (out, in); bias: (out) or undefined.
class Linear : public Module {
 public:
  struct Options {
    bool bias = true;
    /// Standard deviation of a normal first weight, with zero bias (the classifiers of regnets: 0.01);
    /// 0: PyTorch's default, U(-1/sqrt(in), 1/sqrt(in)) for both.
    double weight_std = 0.0;
  };
  Linear(int64_t in, int64_t out, Options options, const Init& init = {});
  Linear(int64_t in, int64_t out, const Init& init = {}) : Linear(in, out, Options{}, init) {}

  Tensor weight, bias;

 protected:
  Tensor forward(const Tensor& x) override;
};

/// Channel attention (Hu et al. 2018): images of `channels` -> the same, each channel scaled by a gate of its image.
/// fc1.weight (reduced, channels), fc1.bias, fc2.weight (channels, reduced), fc2.bias; weights start like those of a
/// 1x1 convolution, biases like PyTorch's default.
class SqueezeExcite : public Module {
 public:
  SqueezeExcite(int64_t channels, int64_t reduced, const Init& init = {});

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  Tensor w1_, b1_, w2_, b2_;
};

/// Its children, one after the other.
class Sequential : public Module {
 public:
  Sequential() = default;
  using Module::add_child;

 protected:
  Tensor forward(const Tensor& x) override;
};

}  // namespace saccade::nn
