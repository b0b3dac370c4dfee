"use strict";
// Runs before the first paint, so that a remembered theme does not flash.
document.documentElement.classList.add("js");
try {
  const theme = localStorage.getItem("otel-mlmon-theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {} // without storage the system decides
