#include "train/distillation.h"

#include <algorithm>

#include "base/error.h"
#include "base/huge_pages.h"
#include "train/checkpoint.h"
#include "train/rows.h"
#include "weights/config_json.h"

namespace foe::train {

Teacher::Teacher(ThreadPool& pool, const std::string& model_dir, int vocab)
    : layout(load_model_config(model_dir)), params(large_zeroed_buffer<float>(layout.size)), weights(layout) {
  if (layout.dims.vocab != vocab)
    fail("{}: expected a teacher with the vocabulary of the model in training, {} tokens, got {}", model_dir, vocab,
         layout.dims.vocab);
  load_params(pool, model_dir, layout, params.data());
  weights.pack(pool, params.data());
}

// With the logits z and t, and their log-sum-exps, log q = z - log_q and log p = t - log_p: KL = sum of p (log p - log
// q) = sum of p t - sum of p z - log_p + log_q. The gradient of -sum of y log q for y = (1 - w) onehot + w p is q - y.
template <typename T>
T distilled_row_backward(T* logits, T* teacher_logits, std::int32_t target, T scale, Distillation<T>& distillation) {
  const int n = static_cast<int>(distillation.row_V.size());
  const T w = distillation.weight, at_target = logits[target];
  std::copy_n(teacher_logits, n, distillation.row_V.data());
  const T log_p = softmax_row(teacher_logits, n, T{1});
  const T gap = dot(teacher_logits, distillation.row_V.data(), n) - dot(teacher_logits, logits, n);
  const T log_q = softmax_row(logits, n, T{1});
  distillation.divergence += gap - log_p + log_q;
  for (int i = 0; i < n; ++i) logits[i] = scale * (logits[i] - w * teacher_logits[i]);
  logits[target] -= scale * (1 - w);
  return log_q - at_target;
}

template float distilled_row_backward(float*, float*, std::int32_t, float, Distillation<float>&);
template double distilled_row_backward(double*, double*, std::int32_t, double, Distillation<double>&);

}  // namespace foe::train
