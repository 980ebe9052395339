// Which tile serves how many columns of the result: Wide more than 64, Narrow more than 32, Thin the rest. Any, where it
// exists, serves every input that is not channels-last with channels divisible by eight. This is tuning alone, because
// every tile gives right sums. docs/cuda.md says what each is predicted to reach.
#pragma once

#include "device/pair_loaders.h"
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

// Bytes, four a word.
using DistanceTile = WordTile<128, 64, 16, 8, 4, 3, 2>;

// 16 bits.
struct ForwardPairTiles {
  using Wide = PairTile<128, 128, 32, 64, 4, 1>;
  using Narrow = PairTile<128, 64, 32, 32, 4, 2>;
  using Thin = PairTile<256, 16, 32, 16, 3, 2>;
  using Any = PairTile<128, 64, 32, 32, 4, 1>;  // its loader needs registers
};

struct GradInputPairTiles {
  using Wide = PairTile<64, 64, 8, 64, 4, 1>;  // a warp keeps x/2 of all its positions in registers
  using Narrow = Wide;
  using Thin = PairTile<128, 16, 16, 16, 4, 2>;
  using Any = Wide;
};

}  // namespace addertrain::cuda
