#include <saccade/core/autograd.h>
#include <saccade/ssl/eval/features.h>
#include <saccade/vision/features.h>

#include <algorithm>
#include <set>

namespace saccade::vision {

data::EvalView view_of(const ssl::TrunkInfo& info) {
  data::EvalView view = data::eval_view(data::view_rule_of(info.view), info.size);
  std::copy_n(info.mean.begin(), 3, view.mean.begin());
  std::copy_n(info.std.begin(), 3, view.std.begin());
  return view;
}

data::Rows features(nn::Trunk& trunk, const ssl::TrunkInfo& info, const data::Source& source, int workers) {
  const NoGradScope no_grad;
  const ssl::EvaluationScope evaluation(trunk);
  const auto compute = [&](const Tensor& images) {
    const DeviceScope there(trunk.device());
    return trunk.features(images.to(trunk.device())).to(Device::cpu);
  };
  return data::compute_rows(source, view_of(info), compute, {.batch = 32, .workers = workers},
                            [&](const Tensor& image) { return ssl::where_not_finite(trunk, image); });
}

std::function<std::vector<std::pair<std::string, double>>(int64_t)> knn_test(
    std::shared_ptr<nn::Trunk> trunk, const ssl::TrunkInfo& info, data::LabelledPair images,
    const ssl::KnnOptions& options, std::function<void(const std::string&)> left_out) {
  return [=, told = std::set<std::string>()](int64_t) mutable {
    const data::Rows bank = features(*trunk, info, images.train), queries = features(*trunk, info, images.test);
    for (const data::Rows* rows : {&bank, &queries})
      for (const data::Failure& f : rows->failures)
        if (told.insert(f.reason).second && left_out) left_out(f.reason);
    const auto found = ssl::knn_classify(bank.rows, bank.labels, queries.rows, options);
    return std::vector<std::pair<std::string, double>>{{"kNN", ssl::accuracy(found, queries.labels)}};
  };
}

}  // namespace saccade::vision
