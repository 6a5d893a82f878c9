import './firstMinutes.e2e.ts';
