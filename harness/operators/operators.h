// The modules of the operator table; operator.cpp puts them together. No self-registration: a grep finds every operator.
#pragma once

#include <vector>

#include "harness/operator.h"

namespace fla::harness {

void add_norm(std::vector<Direction>&);
void add_activation(std::vector<Direction>&);
void add_fp8(std::vector<Direction>&);
void add_loss(std::vector<Direction>&);
void add_conv(std::vector<Direction>&);
void add_rotary(std::vector<Direction>&);
void add_token_shift(std::vector<Direction>&);
void add_varlen(std::vector<Direction>&);
void add_long_conv(std::vector<Direction>&);
void add_gemm(std::vector<Direction>&);
void add_linear(std::vector<Direction>&);
void add_mlp(std::vector<Direction>&);
void add_feature_map(std::vector<Direction>&);
void add_learned_map(std::vector<Direction>&);
void add_linear_loss(std::vector<Direction>&);

}  // namespace fla::harness
