/** esbuild bundles imported styles into dist/chat.css. */
declare module '*.css';
