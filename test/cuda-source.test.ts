// What kernel files may not say: words that only one of their two compilers reads, that belong into gpu.h's wrappers, or that would make a
// result depend on more than its inputs.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { read, root } from './checkout.js';

const forbidden: [pattern: RegExp, why: string][] = [
  [/\b__shared__\b/, 'GPU_SHARED and gpu::DynamicShared carve shared memory'],
  [/<<</, 'gpu::launch starts kernels'],
  [/\basm\b/, 'instructions have wrappers in gpu_nvcc.h'],
  [/\b__constant__\b/, 'tables are arguments or device memory'],
  [/cooperative_groups|\bcg::/, 'not in the emulator'],
  [/\b__activemask\b|\bwarpSize\b/, 'masks and widths are written out'],
  [/\b__CUDACC__\b|\b__CUDA_ARCH__\b/, 'gpu.h alone knows its compiler'],
  [/#\s*include\s*[<"](cuda|cub|thrust|mma|cublas|cutlass)/, 'gpu.h brings what there is; the kernels are our own'],
  [/\b(cublas|cudnn|cutlass|cub)(::|[A-Z])/, 'the kernels are our own'],
  [/\b__half2?\b|\b__nv_bfloat16/, 'gpu::f16 and gpu::bf16 are storage'],
  [
    /\b__fmul_rn\b|\b__fadd_rn\b|\b__expf\b|\b__sinf\b|\b__cosf\b/,
    'intrinsics that the emulator lacks or that differ from it',
  ],
  [/atomicAdd\s*\(\s*(\(float|reinterpret_cast<(float|double))/, 'sums of floats have one written order'],
];

/** In functions of the device: the host's may. */
const forbiddenOnDevice: [pattern: RegExp, why: string][] = [
  [
    /\b(__builtin_)?mem(cpy|set|move|cmp)\b|\bbcopy\b/,
    "the emulator's checks do not see what a library function reads and writes",
  ],
  [
    /\bstd::(copy|fill|move_backward)(_n|_backward)?\b/,
    "the emulator's checks do not see what a library function reads and writes",
  ],
  [
    /\b__global__(?!\s+void\s+__launch_bounds__\b)/,
    'a block larger than the registers suffice for is found by the launch bounds alone',
  ],
];

/** Without comments and texts, which may name what they avoid. */
const code = (source: string) =>
  source
    .replace(/\/\*[^]*?\*\//g, '')
    .replace(/\/\/.*$/gm, '')
    .replace(/"(?:[^"\\\n]|\\.)*"/g, (text) => (/^"[\w./]+\.h"$/.test(text) ? text : '""'));

/** Where the function whose qualifier stands at `at` ends: behind its body, or at the semicolon of a declaration. */
function endOfFunction(source: string, at: number): number {
  for (let i = at, round = 0, braces = 0; i < source.length; ++i) {
    const letter = source[i];
    if (letter === '(') ++round;
    else if (letter === ')') --round;
    else if (letter === '{') ++braces;
    else if (letter === '}') --braces;
    if (round > 0 || braces > 0) continue;
    if (letter === ';') return i;
    // behind braces that initialise a member there are more, or the body
    if (letter === '}' && !/^\s*[,{]/.test(source.slice(i + 1, i + 200))) return i + 1;
  }
  return source.length;
}

/** What runs on the device: from each qualifier to its function's end. */
const onDevice = (source: string) =>
  [...source.matchAll(/\b__(?:device|global)__\b/g)]
    .map(({ index }) => source.slice(index, endOfFunction(source, index)))
    .join('\n');

/** Kernels that wait for the launch before, but not as the first that they do. */
const lateWaits = (device: string) =>
  device.split(/\b(?=__global__\b)/).filter((kernel) => {
    if (!/\bwait_for_previous/.test(kernel)) return false;
    return !/^__global__[^{]*\)\s*\{\s*gpu::wait_for_previous\(\);(?![^]*\bwait_for_previous)/.test(kernel);
  });

function violations(path: string, source: string): string[] {
  const all = code(source);
  const device = onDevice(all);
  return [
    ...forbidden.filter(([pattern]) => pattern.test(all)),
    ...forbiddenOnDevice.filter(([pattern]) => pattern.test(device)),
  ]
    .map(([pattern, why]) => `${path}: ${String(pattern)}: ${why}`)
    .concat(
      lateWaits(device).map(
        (kernel) => `${path}: a launch that overlaps waits before all else: ${kernel.split('\n')[0]!}`,
      ),
    );
}

const rule = suite('cuda source');

rule('kernel files hold to it', () => {
  const folder = join('native', 'ops', 'cuda');
  const files = readdirSync(join(root, folder)).filter(
    (name) => /\.(cu|h)$/.test(name) && !/^gpu(_nvcc)?\.h$/.test(name),
  );
  assert.ok(files.filter((name) => name.endsWith('.cu')).length > 10, `only ${files.length} files found`);
  assert.equal(
    files.flatMap((name) => violations(name, read(join(folder, name)))),
    [],
  );
});

rule('the test sees what it forbids', () => {
  for (const line of [
    '__shared__ float x[32];',
    'kernel<<<1, 32>>>();',
    'asm volatile("bar.sync 0;");',
    '__constant__ float table[4];',
    'namespace cg = cooperative_groups; cg::this_thread();',
    'if (__activemask() == 1) return;',
    '#ifdef __CUDA_ARCH__',
    '#include <cuda_fp16.h>',
    '#include <cub/cub.cuh>',
    'cublasHandle_t handle;',
    '__half x;',
    'y = __expf(x);',
    'atomicAdd(reinterpret_cast<float*>(p), 1.0f);',
    '__device__ inline void f(float* x) { memcpy(x, x + 1, 4); }',
    '__device__ Tile(int n) : size{n}, count(n) { std::memset(this, 0, n); }',
    'template <int n> __global__ void __launch_bounds__(n) f(float* x) { if (n > 1) { x[0] = 1; } __builtin_memcpy(x, x, 4); }',
    '__host__ __device__ constexpr int g() { return 1; } __device__ void f() { [&] { memmove(a, b, 4); }(); }',
    '__device__ void f(float* x) { std::fill_n(x, 4, 0.0f); }',
    '__global__ void f(float* x) { *x = 0; }',
    '__global__ void __launch_bounds__(32) f(float* x) { if (!x) return; gpu::wait_for_previous(); *x = 0; }',
    '__device__ void f(float* x) { gpu::wait_for_previous(); *x = 0; }',
  ])
    assert.is(violations('x.cu', line).length, 1, line);
  for (const line of [
    '// no asm, no <<<',
    'fail("asm __shared__");',
    '#include "ops/cuda/gpu.h"',
    'atomicAdd(&bins[i], 1);',
    'void f(float* x) { std::memcpy(x, x + 1, 4); }',
    '__device__ int f(); void g(float* x) { memset(x, 0, 4); }',
    '__device__ Tile(int n) : size{n} { count = n; } void g(float* x) { memset(x, 0, 4); }',
    '__global__ void __launch_bounds__(32) f(float* x) { *x = 0; } void g(float* x) { std::fill_n(x, 4, 0.0f); }',
    'template <int n> __global__ void __launch_bounds__(n, n == 1 ? 2 : 1)\n f(float* x) {\n gpu::wait_for_previous();\n *x = 0; }',
  ])
    assert.equal(violations('x.cu', line), [], line);
});

rule('every wrapper of gpu_nvcc.h has its double in the emulator', () => {
  const names = (path: string) =>
    new Set(
      [...read(path).matchAll(/\b(?:inline|constexpr)\s+[\w:]+(?:\s*[*&])?\s+(\w+)\s*\(/g)].map(([, name]) => name!),
    );
  const real = names(join('native', 'ops', 'cuda', 'gpu_nvcc.h'));
  assert.ok(real.has('mma_s8_k32') && real.size > 15, [...real].join(', '));
  const headers = readdirSync(join(root, 'native', 'simt')).filter((name) => name.endsWith('.h'));
  const emulated = headers.map((name) => read(join('native', 'simt', name))).join('\n');
  assert.equal(
    [...real].filter((name) => !new RegExp(`\\b${name}\\s*\\(`).test(emulated)),
    [],
  );
});

rule.run();
