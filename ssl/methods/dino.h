#pragma once

#include <saccade/nn/trunk.h>
#include <saccade/ssl/methods/method.h>
#include <saccade/ssl/train/objective.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace saccade::ssl {

/// Knobs of DINO (Caron et al., "Emerging properties in self-supervised vision transformers", 2021).
struct DinoOptions {
  int64_t outputs = 65536;    ///< K; far fewer for small data
  int64_t hidden = 2048;      ///< width of the head's hidden layers
  int64_t hidden_layers = 2;  ///< of the head
  int64_t dim = 256;          ///< of the embeddings, the head's bottleneck
  bool head_bn = false;       ///< batch norm in the head

  float temperature = 0.1f;           ///< of the student
  float teacher_temperature = 0.04f;  ///< of the teacher: lower is sharper
  float teacher_temperature_start = 0.04f;
  int64_t teacher_warmup_epochs = 0;  ///< the teacher's temperature goes from start to its own over so many

  float momentum = 0.996f;        ///< of the teacher's weights at first; it rises along a cosine to 1
  float center_momentum = 0.9f;   ///< of the mean that is taken off the teacher's outputs
  int64_t teaching = 2;           ///< the first crops: the teacher sees these alone, the student all
  int64_t freeze_iterations = 0;  ///< the student's last layer gets no gradient before this iteration
};

/// DINO on a convolutional trunk: a student and a teacher of the same shape, trunk and head each. The head is an MLP
/// with GELU, a bottleneck whose outputs have length 1 (the embeddings), and a linear layer without bias whose rows
/// have length 1. The teacher's outputs t of the first crops, less their running mean c and sharpened, are what the
/// student's outputs s of every other crop of the image shall be (eq. 1-2, algorithm 1): with
/// P = softmax((t_i - c) / tau_t),
///
///     L = mean over pairs of crops i != v, i teaching, and over images, of  -sum_k P_k ln softmax(s_v / tau_s)_k
///
/// After each update the teacher's weights follow the student's, teacher <- m teacher + (1 - m) student, and the
/// centre the mean of the teacher's outputs in all of the iteration's batches. Batch norm of the teacher has running
/// statistics of its own, and normalises by those of its batch, as the authors' code does.
///
/// What is learned is better in the teacher; it lies under "teacher", the centre in the buffer "center".
class Dino final : public Objective {
 public:
  /// @param trunk    images -> pooled features: the student's, kept as child "trunk"
  /// @param teacher  another of the same shape; it begins as the student
  Dino(std::shared_ptr<nn::Trunk> trunk, std::shared_ptr<nn::Trunk> teacher, DinoOptions options, uint64_t seed = 0);

  nn::Trunk& trunk() override { return *trunk_; }
  nn::Trunk& result() override { return *teacher_trunk_; }
  /// In the first iteration of all the teacher becomes the student's likeness.
  void begin(std::span<const Batch> batches, const Progress& progress) override;
  Tensor loss(std::span<const Batch> batches, size_t which, const Progress& progress) override;
  /// Rows are crop-major. "embeddings": (crops * images, dim) of the student, of teaching crops alone where there are
  /// several batches; "targets": (teaching * images, K) of the teacher.
  std::vector<NamedTensor> seen() const override;
  void release() override { embeddings_ = targets_ = {}; }
  void updated(const Progress& progress) override;
  std::unique_ptr<HealthRules> health() const override;
  std::vector<StartingPart> parts_from(const Weights& weights, const std::string& trunk_prefix) override;

  /// Of the teacher in that iteration.
  float teacher_temperature(const Progress& progress) const;
  float momentum(const Progress& progress) const;

  /// Makes the teacher the student's likeness.
  void teach_from_student();

  const DinoOptions& options() const { return options_; }
  const Tensor& center() const { return center_; }  ///< (K)

 protected:
  /// images -> (N, dim), of the student
  Tensor forward(const Tensor& images) override;

 private:
  class Head;
  class Teacher;
  /// In the order of the teacher's.
  std::vector<Tensor> student() const;

  DinoOptions options_;
  std::shared_ptr<nn::Trunk> trunk_, teacher_trunk_;
  std::shared_ptr<Head> head_;
  std::shared_ptr<Teacher> teacher_;
  Tensor center_;
  Tensor mean_;                  ///< of the teacher's outputs in this iteration
  Tensor embeddings_, targets_;  ///< of the whole iteration
};

/// The row of the table of methods.
Method dino_method();

/// The top of the schedule for AdamW when nobody chose it: the authors' 0.0005 at 256 images, in proportion.
constexpr double default_dino_adamw_lr(int64_t batch) { return 5e-4 * static_cast<double>(batch) / 256; }

}  // namespace saccade::ssl
