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

/** Without comments and texts, which may name what they avoid. */
const code = (source: string) =>
  source
    .replace(/\/\*[^]*?\*\//g, '')
    .replace(/\/\/.*$/gm, '')
    .replace(/"(?:[^"\\\n]|\\.)*"/g, (text) => (/^"[\w./]+\.h"$/.test(text) ? text : '""'));

function violations(path: string, source: string): string[] {
  return forbidden
    .filter(([pattern]) => pattern.test(code(source)))
    .map(([pattern, why]) => `${path}: ${String(pattern)}: ${why}`);
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
  ])
    assert.is(violations('x.cu', line).length, 1, line);
  for (const line of [
    '// no asm, no <<<',
    'fail("asm __shared__");',
    '#include "ops/cuda/gpu.h"',
    'atomicAdd(&bins[i], 1);',
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
