/// A method of one's own: SimSiam (Chen & He 2020) in thirty lines, trained on a folder of images like any other.
///
///   own_method FOLDER EPOCHS RUN
///
/// It prints each iteration's loss, which falls from about 0 towards -1, and what the health monitor has to say; RUN
/// gets checkpoints, from which the same command goes on, and trunk.safetensors.
#include <saccade/saccade.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

using namespace saccade;

/// From one view of an image a small network predicts the embedding of the other, which gets no gradient.
class SimSiam final : public ssl::Objective {
 public:
  explicit SimSiam(std::shared_ptr<nn::Trunk> trunk, int64_t dim = 256) {
    const std::vector<int64_t> to_dim{trunk->out_channels(), dim, dim}, narrow{dim, dim / 4, dim};
    trunk_ = add_child("trunk", std::move(trunk));
    head_ = add_child("head", std::make_shared<nn::ProjectionHead>(to_dim));
    predictor_ = add_child("predictor", std::make_shared<nn::ProjectionHead>(narrow));
  }
  nn::Trunk& trunk() override { return *trunk_; }

  Tensor loss(std::span<const Batch> batches, size_t which, const ssl::Progress&) override {
    const Batch& batch = batches[which];  // two views of each image: all first ones, then all second ones
    const DeviceScope device(batch.images.device());
    const int64_t n = batch.size();
    const Tensor z = (*this)(batch.images);
    embeddings_.push_back(z.detach());
    const Tensor other = Tensor::empty({2 * n, z.dim(1)});
    other.slice(0, n).copy_from(z.detach().slice(n, 2 * n));
    other.slice(n, 2 * n).copy_from(z.detach().slice(0, n));
    return scale(inner_product(l2_normalize((*predictor_)(z)), other), -0.5f / static_cast<float>(n));
  }
  std::vector<NamedTensor> seen() const override { return {{"embeddings", ssl::view_after_view(embeddings_, 2)}}; }
  void release() override { embeddings_.clear(); }

 protected:
  Tensor forward(const Tensor& images) override { return l2_normalize((*head_)(trunk_->features(images))); }

 private:
  std::shared_ptr<nn::Trunk> trunk_;
  std::shared_ptr<nn::ProjectionHead> head_, predictor_;
  std::vector<Tensor> embeddings_;
};

int main(int argc, char** argv) try {
  if (argc != 4) return std::puts("usage: own_method FOLDER EPOCHS RUN"), 2;
  const data::Source images = data::folder(argv[1]);
  data::Loader loader(images, data::multi_crop({{2, 48, {.2f, 1.f}}}), {.batch = 16});
  SimSiam model(nn::trunk("y_200mf"));
  ssl::Trainer trainer(model, optim::larc_sgd(), {.epochs = std::atoi(argv[2]), .lr = 0.1f});
  trainer.observe({.on_step = [](const ssl::StepReport& s) { std::printf("%ld: %.3f\n", s.iteration, s.loss); },
                   .on_message = [](const ssl::HealthMessage& m) { std::puts(m.text().c_str()); }});
  trainer.fit(loader, argv[3]);
  io::save_safetensors(std::filesystem::path(argv[3]) / "trunk.safetensors",
                       nn::state_dict(model.trunk(), nn::Names::timm));
} catch (const std::exception& error) {
  std::fprintf(stderr, "own_method: %s\n", error.what());
  return 1;
}
