import type { Metadata } from "next";
import type { ReactNode } from "react";

export const metadata: Metadata = { title: "FluxHero" };

export default function Layout({ children }: { children: ReactNode }) {
  return (
    <html lang="en">
      <body style={{ fontFamily: "system-ui, sans-serif", maxWidth: "48rem", margin: "2rem auto" }}>{children}</body>
    </html>
  );
}
