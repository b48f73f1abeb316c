// Which images of a folder look like these? Embeds a folder with a trained network and prints the nearest to each
// query.
//
//   embed_and_search WEIGHTS FOLDER QUERIES       WEIGHTS: a run folder, trunk.safetensors, or another program's file
//
// For each image of QUERIES (a folder) it prints its name and the five of FOLDER with the largest cosine of features:
//   lost/cat.jpg
//     0.973  photos/cats/12.jpg
#include <saccade/saccade.h>

#include <cstdio>

using namespace saccade;

int main(int argc, char** argv) try {
  if (argc != 4) return std::puts("usage: embed_and_search WEIGHTS FOLDER QUERIES"), 2;

  const ssl::Network network = ssl::load_network(argv[1]);
  const data::Source images = data::folder(argv[2]), queries = data::folder(argv[3]);
  const data::Rows bank = vision::features(network, images);
  const data::Rows asked = vision::features(network, queries);
  for (const data::Rows* rows : {&bank, &asked})
    for (const data::Failure& failure : rows->failures) std::printf("left out: %s\n", failure.reason.c_str());

  const ssl::Neighbours found = ssl::nearest(bank.rows, asked.rows, 5);
  for (size_t query = 0; query < asked.indices.size(); ++query) {
    std::printf("%s\n", queries.key(asked.indices[query]).c_str());
    for (size_t i = 0; i < static_cast<size_t>(found.per_query); ++i) {
      const size_t at = query * static_cast<size_t>(found.per_query) + i;
      const int64_t image = bank.indices[static_cast<size_t>(found.index[at])];
      std::printf("  %.3f  %s\n", static_cast<double>(found.cosine[at]), images.key(image).c_str());
    }
  }
  // To keep the features: data::write_rows("photos.npy", bank, images);
} catch (const std::exception& error) {
  std::fprintf(stderr, "embed_and_search: %s\n", error.what());
  return 1;
}
