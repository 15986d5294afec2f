import { defineConfig } from 'vite';

export default defineConfig({
  base: './',
  // JSX by the automatic runtime, as tsconfig.json says.
  build: {
    outDir: '../dist/src/web/page',
    emptyOutDir: true,
    // The page's Content-Security-Policy has neither inline scripts nor data: URLs for code.
    assetsInlineLimit: 0,
    modulePreload: false,
    reportCompressedSize: false,
  },
  logLevel: 'warn',
});
