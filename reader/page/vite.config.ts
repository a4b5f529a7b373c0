// Builds the page into reader/dist/page, each file beside its gzip; fails when what a browser loads is larger than agreed.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { constants, gzipSync } from 'node:zlib'
import { defineConfig, type Plugin } from 'vite'

const OUT = join(import.meta.dirname, '..', 'dist', 'page')
const MAX_GZIP_BYTES = 60 * 1024
const MAX_FIRST_GZIP_BYTES = 35 * 1024 // without what a device's charts need

/** Writes a `.gz` beside each file, and counts. */
const compress = (): Plugin => ({
  name: 'compress',
  closeBundle() {
    const files = readdirSync(OUT, { recursive: true, encoding: 'utf8' }).filter((name) =>
      /\.(html|js|css|svg)$/.test(name),
    )
    let total = 0
    let first = 0
    for (const name of files) {
      const gzip = gzipSync(readFileSync(join(OUT, name)), { level: constants.Z_BEST_COMPRESSION })
      writeFileSync(join(OUT, `${name}.gz`), gzip)
      total += gzip.length
      if (!name.includes('uPlot')) first += gzip.length
      this.info(`${name} ${gzip.length} bytes gzip`)
    }
    this.info(`${first} bytes gzip at first, ${total} in all`)
    if (total > MAX_GZIP_BYTES || first > MAX_FIRST_GZIP_BYTES)
      throw new Error(`the page has ${first} bytes gzip at first and ${total} in all: more than agreed`)
  },
})

export default defineConfig({
  root: import.meta.dirname,
  logLevel: 'warn',
  build: {
    outDir: OUT,
    emptyOutDir: true,
    target: 'es2022',
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
  },
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  plugins: [compress()],
})
