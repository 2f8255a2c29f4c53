// A user who writes torch's name of a type means the same type as one who writes the short one.
#include <string>
#include <utility>

#include "evenspan/core/error.h"
#include "evenspan/plan/request.h"
#include "gtest/gtest.h"

namespace evenspan::plan {
namespace {

TEST(ElementTypes, HaveAShortNameAndTorchsNames) {
  const std::pair<const char*, ElementType> names[] = {
      {"bf16", ElementType::bf16},   {"bfloat16", ElementType::bf16}, {"f16", ElementType::f16},
      {"float16", ElementType::f16}, {"half", ElementType::f16},      {"f32", ElementType::f32},
      {"float32", ElementType::f32}, {"float", ElementType::f32},     {"f64", ElementType::f64},
      {"float64", ElementType::f64}, {"double", ElementType::f64}};
  for (const auto& [name, type] : names) EXPECT_EQ(parse_element_type(name), type) << name;
  for (const char* name : {"", "f8", "float8", "F32", "fp16", "int32"}) {
    EXPECT_THROW(parse_element_type(name), Error) << name;
  }
}

}  // namespace
}  // namespace evenspan::plan
