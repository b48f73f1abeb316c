#pragma once

#include <saccade/ssl/report/png.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string_view>

namespace saccade::ssl {

/// CRC-32C (Castagnoli), as TensorBoard's records carry it.
uint32_t crc32c(std::string_view data);

/// Writes a TensorBoard event file. Each record is given to the system at once, so that a run can be watched and a
/// killed one loses nothing.
class TensorBoard {
 public:
  /// A new file `events.out.tfevents.SECONDS.HOST` in the folder, which is made if need be.
  /// @param first_step  of this sitting; above 0 TensorBoard forgets what an earlier sitting wrote of this step and
  ///                    later ones
  explicit TensorBoard(const std::filesystem::path& folder, int64_t first_step = 0);

  /// All throw Error when the file can no longer be written.
  void scalar(std::string_view tag, int64_t step, double value);
  void image(std::string_view tag, int64_t step, const Thumbnail& picture);

  const std::filesystem::path& path() const { return path_; }

 private:
  void record(std::string_view event);

  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace saccade::ssl
