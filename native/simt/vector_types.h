// CUDA's small vector types and dim3, with CUDA's names, alignments and make_ functions, for compilers that lack them.
#pragma once

#ifdef __SANITIZE_THREAD__
#include <type_traits>

/// Keeps the compiler from storing a vector of constants part by part: the device stores it as one, and the memory
/// report counts what it stores.
template <class T>
constexpr T simt_as_one(T vector) {
  if (!std::is_constant_evaluated()) asm("" : "+m"(vector));
  return vector;
}
#define SIMT_AS_ONE(...) simt_as_one(__VA_ARGS__)
#else
#define SIMT_AS_ONE(...) __VA_ARGS__
#endif

#define SIMT_VECTOR2(name, type, alignment) \
  struct alignas(alignment) name {          \
    type x, y;                              \
  };                                        \
  constexpr name make_##name(type x, type y) { return SIMT_AS_ONE(name{x, y}); }
#define SIMT_VECTOR3(name, type) \
  struct name {                  \
    type x, y, z;                \
  };                             \
  constexpr name make_##name(type x, type y, type z) { return {x, y, z}; }
#define SIMT_VECTOR4(name, type, alignment) \
  struct alignas(alignment) name {          \
    type x, y, z, w;                        \
  };                                        \
  constexpr name make_##name(type x, type y, type z, type w) { return SIMT_AS_ONE(name{x, y, z, w}); }

SIMT_VECTOR2(char2, signed char, 2)
SIMT_VECTOR2(uchar2, unsigned char, 2)
SIMT_VECTOR2(short2, short, 4)
SIMT_VECTOR2(ushort2, unsigned short, 4)
SIMT_VECTOR2(int2, int, 8)
SIMT_VECTOR2(uint2, unsigned, 8)
SIMT_VECTOR2(float2, float, 8)
SIMT_VECTOR2(longlong2, long long, 16)
SIMT_VECTOR2(ulonglong2, unsigned long long, 16)
SIMT_VECTOR2(double2, double, 16)
SIMT_VECTOR3(int3, int)
SIMT_VECTOR3(uint3, unsigned)
SIMT_VECTOR3(float3, float)
SIMT_VECTOR4(char4, signed char, 4)
SIMT_VECTOR4(uchar4, unsigned char, 4)
SIMT_VECTOR4(short4, short, 8)
SIMT_VECTOR4(ushort4, unsigned short, 8)
SIMT_VECTOR4(int4, int, 16)
SIMT_VECTOR4(uint4, unsigned, 16)
SIMT_VECTOR4(float4, float, 16)

#undef SIMT_VECTOR2
#undef SIMT_VECTOR3
#undef SIMT_VECTOR4
#undef SIMT_AS_ONE

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
