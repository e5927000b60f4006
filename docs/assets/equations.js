// Equations, on every page that is shown: arithmatex leaves them as \(...\) and \[...\].
document$.subscribe(({ body }) => {
  if (window.renderMathInElement) {
    renderMathInElement(body, {
      delimiters: [
        { left: "\\(", right: "\\)", display: false },
        { left: "\\[", right: "\\]", display: true },
      ],
      throwOnError: false,
    })
  }
})
