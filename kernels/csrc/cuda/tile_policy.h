// Which tile serves how many columns of the result: tuning alone, any tile gives right sums. docs/cuda.md says what each
// is predicted to reach.
#pragma once

#include "device/tile.h"

namespace addertrain::cuda {

struct ForwardTiles {
  using Wide = WordTile<64, 128, 16, 8, 8, 3, 4>;
  using Narrow = WordTile<128, 64, 16, 8, 4, 3, 2>;
  using Thin = WordTile<256, 16, 16, 8, 4, 3, 4>;
};

struct GradInputTiles {
  using Wide = WordTile<128, 128, 16, 8, 8, 3, 1>;  // x/2 takes as many registers as the sums
  using Narrow = WordTile<128, 64, 16, 8, 4, 3, 2>;
  using Thin = WordTile<256, 16, 16, 8, 4, 3, 4>;
};

}  // namespace addertrain::cuda
